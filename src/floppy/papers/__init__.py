"""Both papers as data: what they report, what this project ran, and the command that runs it again."""
