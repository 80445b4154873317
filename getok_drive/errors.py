"""The project's exceptions: each message says what is wrong, where, and how to mend it."""


class GetokError(Exception):
    """Base of every error that GETok-Drive raises on purpose."""


class ConfigError(GetokError):
    """A setting is unknown, out of range or contradicts another."""


class BundleError(GetokError):
    """A model bundle is incomplete, altered, or does not match this runtime."""


class CalibrationError(GetokError):
    """A camera calibration is missing, malformed or geometrically impossible."""


class BackendError(GetokError):
    """An inference backend cannot be loaded or failed while running."""


class InputError(GetokError):
    """An image, video, bag or message from outside cannot be used."""
