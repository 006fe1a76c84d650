"""From notebooks to the book: execution, ledger, pages, HTML and the command line."""


class BuildError(Exception):
    """Something that a person must mend; the message says what, in one line.

    Attributes:
        why: of an execution that failed, the message less the chapter's name and where files lie.
        notebook: its partial notebook, where there is one.
    """

    def __init__(self, message: str, why: str | None = None, notebook=None) -> None:
        super().__init__(message)
        self.why = why or message
        self.notebook = notebook
