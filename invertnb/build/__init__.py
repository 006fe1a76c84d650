"""From notebooks to the book: execution, ledger, pages, HTML and the command line."""


class BuildError(Exception):
    """Something that a person must mend; the message says what, in one line."""
