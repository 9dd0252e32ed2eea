"""Reports in forms for people: text, tables, pictures, CSV and JUnit."""
