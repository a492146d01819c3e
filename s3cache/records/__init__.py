"""Records: every row also as one JSON object that ``loaddata`` takes.

They follow the log by some seconds, for people and other tools. No protocol
reads them: whoever changes one changes no row.
"""
