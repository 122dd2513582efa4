"""The real supervisor among random faults: PostgreSQL's record of what it did is judged afterwards."""
