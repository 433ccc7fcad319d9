"""
A Hub on this machine: enough of the Hugging Face Hub's HTTP API for the real clients (huggingface_hub, datasets, diffusers) to
create, push to, list and load repositories, and faults that can be injected at each endpoint.

    with LoopbackHub(folder) as hub:
        ...  # HF_ENDPOINT=hub.url, HF_TOKEN=hub.token
"""

from support.loopback_hub.faults import CUT, HANG, Fault
from support.loopback_hub.server import LoopbackHub
from support.loopback_hub.store import Repo

__all__ = ["CUT", "HANG", "Fault", "LoopbackHub", "Repo"]
