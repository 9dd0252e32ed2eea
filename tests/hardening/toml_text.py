"""Any tree of values as TOML, as far as TOML can write it."""

import json


def toml(tree):
    """Return a file's bytes: top-level values first, then tables and arrays of tables."""
    lines = [f"{_key(key)} = {_value(value)}" for key, value in tree.items() if not _stands_alone(value)]
    for key, value in tree.items():
        if _stands_alone(value):
            head = f"[[{_key(key)}]]" if isinstance(value, list) else f"[{_key(key)}]"
            for table in value if isinstance(value, list) else [value]:
                lines += ["", head, *(f"{_key(name)} = {_value(entry)}" for name, entry in table.items())]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def _stands_alone(value):
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)
    )


def _key(key):
    text = str(key)
    return text if text.isascii() and text.replace("_", "a").isalnum() else json.dumps(text, ensure_ascii=False)


def _value(value):
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_key(key)} = {_value(entry)}' for key, entry in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool) or value is None:
        return str(value).lower()  # TOML has no null: the file is to be refused
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
