"""What a user can mend, and what they should know."""

import traceback
import unicodedata


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one sentence that quotes the input and says what to do; the command line prints it and
    exits with code 2. What it quotes may be anybody's: characters that steer a terminal are spelt out, whoever raised
    it.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(map(_visible, message)))


def _visible(character: str) -> str:
    steers = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return character.encode("unicode_escape").decode("ascii") if steers else character


class ModelError(InputError):
    """The user's model fails, returns something else than scores, or has no gradient where one is needed.

    The message is one sentence about the model, without the photo.
    """


class ShortageError(OSError):
    """This machine has not enough memory, or open files, for what is well in itself.

    The message is one sentence that names what was too much and says what to do; the command line prints it and exits
    with code 2.
    """


class InputWarning(UserWarning):
    """What the user gave is used, and means something else than it seems to.

    The message is one sentence; the command line prints it on stderr, once.
    """


class NonFiniteError(ArithmeticError):
    """A computation gave NaN or infinity for one image of a batch.

    Attributes:
        what: the quantity, as a noun phrase.
        index: position of the image in the batch.
    """

    def __init__(self, what: str, index: int) -> None:
        super().__init__(f"{what} of image {index} contains NaN or infinity.")
        self.what = what
        self.index = index


def ended(stop: BaseException) -> str:
    """The sentence for code of the user's own that raised ``stop`` to end the process, such as SystemExit."""
    *_, place = traceback.extract_tb(stop.__traceback__)
    what = f"{type(stop).__name__}({stop})"
    return (
        f"the model, or another part that was named, ended the process: {what} in {place.name}() of "
        f"{place.filename!r}, line {place.lineno}; let it raise an error, or return"
    )
