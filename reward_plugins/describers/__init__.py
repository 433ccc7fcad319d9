"""Vision-language models that answer questions about images, in this process or on a server."""

from .interface import Describer, Question
from .loading import load_describer
from .options import DescriberOptions, with_describer_options

__all__ = ["Describer", "DescriberOptions", "Question", "load_describer", "with_describer_options"]
