"""Servers of rewards on loopback: the package's own in a thread, and one that misbehaves when told to."""

import contextlib
import threading

from ddpo_plugins.wire import HEALTH, PROTOCOL, SCORE
from support.chat_server import Handler, serving
from support.processes import eventually
from trainer_ext import RewardFunction
from trainer_ext.scoring.functions import ImageFunction
from trainer_ext.scoring.threads import EventLoop
from trainer_ext.serving.app import build_app
from trainer_ext.serving.functions import ServedFunction
from trainer_ext.serving.run import listen, make_server

#: What the misbehaving server says that it serves.
TOY = {"kind": "reward", "name": "toy", "plugin": "toys", "distribution": "toys", "version": "1.0"}


@contextlib.contextmanager
def serving_rewards(*functions, **options):
    """Run the package's own service; plain functions are rewards of their name. The address comes out."""
    loop = EventLoop()
    named = [each if isinstance(each, ImageFunction) else RewardFunction(each.__name__, each) for each in functions]
    app = build_app([ServedFunction(each, "cpu", loop) for each in named], **options)
    with listen("127.0.0.1", 0) as place:
        server = make_server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
        thread.start()
        eventually(lambda: server.started or not thread.is_alive())
        try:
            yield f"http://127.0.0.1:{place.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class RewardHandler(Handler):
    """Speaks the protocol; `reply` of the server gets the request, and its faults come first."""

    def do_GET(self):
        self.server.keys.add(self.headers["Authorization"])
        fault = self.server.fault(self.server.model_faults)
        if fault is not None:
            return fault(self)
        if self.path != HEALTH:
            return self.send(404, {"error": {"kind": "not_found", "message": f"no {self.path}"}})
        self.send(200, {"protocol": PROTOCOL, "version": "0", "functions": self.server.models, "waiting": 0})

    def chat(self, request):
        assert self.path == SCORE
        self.send(200, answer(self.server.reply(request), self.server.models[0]))


def answer(values, served=TOY, **more):
    return {"served": served, "values": values, "metrics": {}, "extras": {}, **more}


def faulty_server(reply=lambda request: [1.0] * len(request["images"]), served=TOY, port=0):
    """Run a server whose `faults` answer in its place, one for each request."""
    return serving(reply, [served], RewardHandler, port)
