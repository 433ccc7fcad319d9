"""A server on loopback that speaks the protocol of OpenAI's chat completions, and misbehaves when told to."""

import base64
import contextlib
import json
import math
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

from PIL import Image


class BadRequestError(Exception):
    """The request is not what such a server takes."""


class ChatServer(ThreadingHTTPServer):
    """
    Answers questions about images with `reply(image, question)`: a text, or for log-probabilities a dictionary from tokens to
    probabilities.

    `faults` are taken from the front, one for each chat request: functions of the handler that answer in its place.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, reply, models=("llava",), handler=None, port=0):
        super().__init__(("127.0.0.1", port), handler or Handler)
        self.reply = reply
        self.models = models
        self.faults = []
        self.model_faults = []
        self.chats = []  # the bodies of all chat requests
        self.keys = set()
        self.under_way = Counter()
        self.closing = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def base_url(self):
        return f"{self.url}/v1"

    def handle_error(self, request, client_address):
        pass  # the client has hung up: what time-outs are about

    def fault(self, faults):
        with self.lock:
            return faults.pop(0) if faults else None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # which waits 0.04 s for each answer of two packets

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.server.keys.add(self.headers["Authorization"])
        fault = self.server.fault(self.server.model_faults)
        if fault is not None:
            return fault(self)
        if self.path != "/v1/models":
            return self.send(404, {"error": {"message": f"no {self.path}"}})
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "test"} for name in self.server.models]
        self.send(200, {"object": "list", "data": models})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.chats.append(json.loads(body))
            self.server.under_way["now"] += 1
            self.server.under_way["most"] = max(self.server.under_way["most"], self.server.under_way["now"])
        try:
            fault = self.server.fault(self.server.faults)
            if fault is not None:
                fault(self)
            else:
                self.chat(json.loads(body))
        finally:
            with self.server.lock:
                self.server.under_way["now"] -= 1

    def chat(self, request):
        try:
            choice = self.choice(request)
        except BadRequestError as error:
            return self.send(400, {"error": {"message": str(error), "type": "BadRequestError", "code": 400}})
        choice |= {"index": 0, "finish_reason": "stop"}
        reply = {
            "id": "chat-1",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [choice],
        }
        self.send(200, reply)

    def choice(self, request):
        image, question = read_request(self.path, request, self.server.models)
        reply = self.server.reply(image, question)
        if "logprobs" not in request:
            return {"message": {"role": "assistant", "content": reply}}
        likeliest = sorted(reply.items(), key=lambda item: -item[1])[: request["top_logprobs"]]
        tokens = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in likeliest]
        logprobs = {"content": [{**tokens[0], "top_logprobs": tokens}]}
        return {"message": {"role": "assistant", "content": tokens[0]["token"]}, "logprobs": logprobs}

    def send(self, status, body, content_type="application/json", **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)


def read_request(path, request, models):
    """Return the image and the question, or say what is wrong."""

    def check(condition, what):
        if not condition:
            raise BadRequestError(what)

    check(path == "/v1/chat/completions", f"no {path}")
    check(request["model"] in models, f"no model {request['model']}")
    check(request["temperature"] == 0, "temperature is not 0")
    check(isinstance(request["max_tokens"], int) and request["max_tokens"] > 0, "max_tokens is no number")
    if "logprobs" in request:
        check(request["logprobs"] is True and 0 < request["top_logprobs"] <= 20, "wrong logprobs")
    ((message),) = request["messages"]
    check(message["role"] == "user", "not a user's message")
    picture, text = message["content"]
    check((picture["type"], text["type"]) == ("image_url", "text"), "not an image and a text")
    header, _, data = picture["image_url"]["url"].partition(",")
    check(header == "data:image/png;base64", f"{header} is no PNG")
    image = Image.open(BytesIO(base64.b64decode(data, validate=True)))
    check((image.format, image.mode) == ("PNG", "RGB"), f"{image.format} {image.mode} is no RGB PNG")
    return image, text["text"]


@contextlib.contextmanager
def serving(reply, models=("llava",), handler=None, port=0):
    """Run a server in threads."""
    server = ChatServer(reply, models, handler, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


# Faults


def status(code, **headers):
    return lambda handler: handler.send(code, {"error": {"message": f"status {code}"}}, **headers)


def body(data, content_type="application/json"):
    return lambda handler: handler.send(200, data, content_type)


def content(text, finish_reason="stop"):
    message = {"role": "assistant", "content": text}
    return body(
        {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]}
    )


def hang(handler):
    """Never answer."""
    handler.server.closing.wait()


def drip(handler):
    """Send a byte now and then: no single wait is long."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "100000000")
    handler.end_headers()
    while not handler.server.closing.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def cut_off(handler):
    """Promise more than is sent."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True
