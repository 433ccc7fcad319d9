"""The interface of describers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from PIL import Image

NUM_LIKELIEST = 20  #: likeliest first tokens of a reply that are considered; no server returns more


class Question(NamedTuple):
    """
    A question about an image.

    Parameters:
        image (`PIL.Image.Image`):
            RGB.
        text (`str`):
            The question.
    """

    image: Image.Image
    text: str


class Describer(Protocol):
    """Answers Q questions about images, without sampling: the likeliest token, then the likeliest after it, and so on."""

    async def answer(self, questions: Sequence[Question], max_new_tokens: int) -> list[str]:
        """
        Reply to each question with at most `max_new_tokens` tokens.

        Returns:
            `list[str]` of length Q, without surrounding white space.

        Raises:
            [`RewardError`]: a question got no answer.
        """
        ...

    async def first_word(self, questions: Sequence[Question], words: Sequence[str]) -> list[list[float]]:
        """
        Return how likely each word is as the first token of the reply.

        Args:
            questions (`Sequence[Question]` of length Q):
                The questions to answer.
            words (`Sequence[str]` of length W):
                Words in lower case. A token counts as a word if they differ only in case and surrounding white space.

        Returns:
            `list[list[float]]` of shape `(Q, W)`: probabilities, summed over a word's tokens. All are 0 where none of the
            words is among the 20 likeliest tokens.

        Raises:
            [`RewardError`]: a question got no answer.
        """
        ...


def is_word(token: str, word: str) -> bool:
    """Return whether a token is a word in lower case, apart from case and surrounding white space."""
    return token.strip().lower() == word
