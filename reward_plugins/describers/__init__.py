"""Vision-language models that answer questions about images, in this process or on a server."""

from .interface import Describer, Question
from .loading import load_describer

__all__ = ["Describer", "Question", "load_describer"]
