"""What a buggy pass does to a problem, one file for each kind of mistake: the replays of the catalogues."""
