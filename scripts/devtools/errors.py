"""The errors that end a developer's script, each with a message for the person who runs it."""


class DevtoolsError(Exception):
    """Base class; the scripts print the message and exit with status 1."""


class OptionError(DevtoolsError):
    """An option has a value that is not accepted."""


class SetupError(DevtoolsError):
    """A network, an archive or a server cannot be set up."""


class LoadError(DevtoolsError):
    """The process that sends the requests ended without a result."""
