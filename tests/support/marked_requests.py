"""Requests by every transport whose bodies carry a marker, most of them broken.

A marker is text that occurs nowhere else: it shows where a part of a body is repeated.
"""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import inference_pb2
import management_pb2
import open_inference_grpc_pb2 as oip
from PIL import Image

from devtools.fuzzing.calls import Call
from devtools.fuzzing.generators import DUPLEX, INFER, PREDICTIONS, STREAM
from tests.support import color_resnet
from tests.support.scripts import COLOR_MODEL

MANAGEMENT = "/org.pytorch.serve.grpc.management.ManagementAPIsService/"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"
JSON = "application/json"
PREDICT = f"/predictions/{COLOR_MODEL}"
EXPLAIN = f"/explanations/{COLOR_MODEL}"
V1 = f"/v1/models/{COLOR_MODEL}:predict"
V2 = f"/v2/models/{COLOR_MODEL}/infer"
INVOKE = f"/invocations?model_name={COLOR_MODEL}"
PNG = color_resnet.png(color_resnet.photo(("red", (160, 120), 60)))

#: Marker -> call.
CallBuilder = Callable[[bytes], Call]


def marker(number: int) -> bytes:
    """Nine bytes that are unique to their number; repeated, their base64 repeats as well."""
    return b"zq%04dxkj" % number


def encodings(marker: bytes) -> Iterator[str]:
    """How a marker that is repeated several times may be written, in lower case."""
    yield marker.decode()
    yield marker.hex()
    yield ", ".join(map(str, marker))
    yield ",".join(map(str, marker))
    for offset in range(3):
        yield base64.b64encode(marker[offset:] + marker[:offset]).decode().lower()


def encodings_in(text: str, marker: bytes) -> list[str]:
    """The encodings of a marker that a text contains."""
    text = text.lower()
    return [encoding for encoding in encodings(marker) if encoding in text]


def _http(
    path: str, content_type: str, body: Callable[[bytes], bytes], method: str = "POST"
) -> CallBuilder:
    headers = (("Content-Type", content_type),) if content_type else ()
    return lambda marker: Call("marked", "http", method, path, headers, body(marker * 20))


def _part(head: str, content: bytes = b"%(bulk)s", end: bytes = b"\r\n--b--\r\n") -> Any:
    """One part of a form with these header lines; ``%(bulk)s`` is replaced by the marker."""

    def body(bulk: bytes) -> bytes:
        lines = head.encode().replace(b"%(bulk)s", bulk)
        return b"--b\r\n" + lines + b"\r\n\r\n" + content.replace(b"%(bulk)s", bulk) + end

    return body


_NAMED = 'Content-Disposition: form-data; name="data"'
_FORMS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "%zz in a value": (FORM, lambda bulk: b"data=" + bulk + b"%zz"),
    "%zz in a value, behind another": (FORM, lambda bulk: b"data=" + bulk + b"&target=%zz"),
    "%zz in a name": (FORM, lambda bulk: bulk + b"%zz=1"),
    "% at the end": (FORM, lambda bulk: b"data=" + bulk + b"%"),
    "%e at the end": (FORM, lambda bulk: b"data=" + bulk + b"%e"),
    "%u": (FORM, lambda bulk: b"data=" + bulk + b"%u00e9"),
    "no equals sign": (FORM, lambda bulk: bulk + b"%zz"),
    "an empty name": (FORM, lambda bulk: b"=" + bulk),
    "no form at all": (FORM, lambda bulk: b"\0\xff" + bulk),
    "a form's unknown charset": (f"{FORM}; charset=nonesuch", lambda bulk: b"data=" + bulk),
    "a form's bad charset": (f"{FORM}; charset=a b", lambda bulk: b"data=" + bulk + b"%zz"),
    "no base64": (FORM, lambda bulk: b"data=@" + bulk),
    "2000 fields": (FORM, lambda bulk: b"&".join(b"x%d=" % n + bulk for n in range(2000))),
    "filename* of an unknown charset": (
        MULTIPART, _part(f"{_NAMED}; filename*=nonesuch''x")
    ),
    "filename* of a charset that is the marker": (
        MULTIPART, _part(f"{_NAMED}; filename*=%(bulk)s''x")
    ),
    "filename* of a charset with a space": (
        MULTIPART, _part(f"{_NAMED}; filename*=%(bulk)s %(bulk)s''x")
    ),
    "filename* with %zz": (MULTIPART, _part(f"{_NAMED}; filename*=utf-8''%(bulk)s%zz")),
    "filename* without quotes": (MULTIPART, _part(f"{_NAMED}; filename*=%(bulk)s")),
    "a part's unknown charset": (
        MULTIPART, _part(f"{_NAMED}\r\nContent-Type: text/plain; charset=nonesuch")
    ),
    "a part's charset that is the marker": (
        MULTIPART, _part(f"{_NAMED}\r\nContent-Type: text/plain; charset=%(bulk)s")
    ),
    "a part's charset with a space": (
        MULTIPART, _part(f"{_NAMED}\r\nContent-Type: text/plain; charset=%(bulk)s x")
    ),
    "an unknown transfer encoding": (
        MULTIPART, _part(f"{_NAMED}; filename=x\r\nContent-Transfer-Encoding: nonesuch")
    ),
    "a transfer encoding that is the marker": (
        MULTIPART, _part(f"{_NAMED}; filename=x\r\nContent-Transfer-Encoding: %(bulk)s")
    ),
    "a part's length that is no number": (
        MULTIPART, _part(f"{_NAMED}\r\nContent-Length: %(bulk)s")
    ),
    "an unnamed part": (MULTIPART, _part("Content-Disposition: form-data")),
    "an unnamed file": (
        MULTIPART, _part("Content-Disposition: form-data; filename=%(bulk)s")
    ),
    "an empty part name": (MULTIPART, _part('Content-Disposition: form-data; name=""')),
    "a part without a disposition": (MULTIPART, _part("X-Other: %(bulk)s")),
    "a part without headers": (MULTIPART, lambda bulk: b"--b\r\n\r\n" + bulk + b"\r\n--b--"),
    "a part's header without a colon": (MULTIPART, _part("%(bulk)s")),
    "a part's header that never ends": (MULTIPART, lambda bulk: b"--b\r\n" + bulk * 1000),
    "multipart/mixed without a boundary": (
        MULTIPART, _part(f"{_NAMED}\r\nContent-Type: multipart/mixed")
    ),
    "multipart/mixed of a boundary that is the marker": (
        MULTIPART, _part(f"{_NAMED}\r\nContent-Type: multipart/mixed; boundary=%(bulk)s")
    ),
    "multipart/mixed that holds a file": (
        MULTIPART,
        _part(
            f"{_NAMED}\r\nContent-Type: multipart/mixed; boundary=c",
            b"--c\r\nContent-Disposition: attachment; filename=%(bulk)s\r\n"
            b"Content-Type: text/plain; charset=%(bulk)s\r\n\r\n%(bulk)s\r\n--c--\r\n",
        ),
    ),
    "no boundary": ("multipart/form-data", _part(_NAMED)),
    "an empty boundary": ("multipart/form-data; boundary=", _part(_NAMED)),
    "another boundary": ("multipart/form-data; boundary=other", _part(_NAMED)),
    "an odd boundary": ('multipart/form-data; boundary="b', _part(_NAMED)),
    "no delimiter": (MULTIPART, lambda bulk: bulk),
    "a damaged delimiter": (MULTIPART, lambda bulk: b"--b" + bulk + b"\r\n\r\n" + bulk),
    "a truncated part": (MULTIPART, _part(_NAMED, end=b"")),
    "a truncated file": (MULTIPART, _part(f"{_NAMED}; filename=%(bulk)s", end=b"")),
    "a truncated head": (MULTIPART, lambda bulk: b"--b\r\n" + _NAMED.encode() + bulk),
    "bytes that are no UTF-8": (
        MULTIPART, lambda bulk: _part(_NAMED.replace("data", "x"))(b"\xff\xfe\0" + bulk)
    ),
    "a form's invalid photo": (MULTIPART, _part(_NAMED)),
}  # fmt: skip
_JSONS: dict[str, Callable[[bytes], bytes]] = {
    "cut JSON": lambda bulk: b'{"image": "' + bulk,
    "cut JSON, behind a number": lambda bulk: b'{"data": "' + bulk + b'", "top_k": 1.',
    "JSON with a trailing comma": lambda bulk: b'{"image": "' + bulk + b'",}',
    "JSON with a bad escape": lambda bulk: b'{"image": "' + bulk + b'\\x"}',
    "JSON with a control character": lambda bulk: b'{"image": "' + bulk + b'\n"}',
    "deep JSON": lambda bulk: b"[" * 50_000 + b'"' + bulk,
    "JSON that is not UTF-8": lambda bulk: b'{"image": "' + bulk + b'\xff\xfe"}',
    "JSON of a bare text": lambda bulk: b'"' + bulk + b'"',
    "JSON that is no base64": lambda bulk: b'{"image": {"b64": "' + bulk + b'@"}}',
    "JSON whose image is a list": lambda bulk: b'{"image": ["' + bulk + b'"]}',
    "JSON whose photo is invalid": lambda bulk: b'{"image": "' + base64.b64encode(bulk) + b'"}',
    "a huge number": lambda bulk: b'{"image": "' + bulk + b'", "top_k": ' + b"9" * 5000 + b"}",
    "v1 instances": lambda bulk: b'{"instances": ["' + bulk + b'@", {"image": "' + bulk + b'"}]}',
    "v1 instances that are text": lambda bulk: b'{"instances": "' + bulk + b'"}',
    "v2 inputs": lambda bulk: (
        b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["%s"]}]}' % bulk
    ),
    "v2 inputs of a wrong shape": lambda bulk: (
        b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [9], "data": ["%s"]}]}' % bulk
    ),
    "v2 inputs that are text": lambda bulk: b'{"inputs": "' + bulk + b'"}',
    "v2 numbers that are text": lambda bulk: (
        b'{"inputs": [{"name": "image", "datatype": "FP32", "shape": [1], "data": ["%s"]}]}' % bulk
    ),
}


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(kind: bytes, data: bytes) -> bytes:
    """The red disc with another chunk after its header."""
    return PNG[:33] + _chunk(kind, data) + PNG[33:]


def _saved(format_name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(buffer, format_name, **options)
    return buffer.getvalue()


def _tiff(bulk: bytes) -> bytes:
    """One directory; the marker is its texts and unknown tags, and its strips are out of bounds."""
    tags = [
        (256, 4, 1, 64), (257, 4, 1, 48), (258, 3, 1, 8), (259, 3, 1, 5), (262, 3, 1, 1),
        (270, 2, len(bulk), 200), (273, 4, 1, 200), (278, 4, 1, 48), (279, 4, 1, len(bulk)),
        (305, 2, len(bulk), 200), (51234, 2, len(bulk), 200), (51235, 99, len(bulk), 200),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(200, b"\0") + bulk


#: Photos whose metadata or damage a decoder may report.
_PHOTOS: dict[str, Callable[[bytes], bytes]] = {
    "no photo": lambda bulk: bulk,
    "a PNG's text": lambda bulk: _png(b"tEXt", b"Comment\0" + bulk),
    "a PNG's profile of a name with line breaks": lambda bulk: _png(
        b"iCCP", b"x\n" + bulk[:36] + b"\n" + bulk[:36] + b"\0\0" + zlib.compress(bulk, 0)
    ),
    "a PNG's profile that forges a metric": lambda bulk: _png(
        b"iCCP",
        b"x\n[METRICS]"
        + bulk[:9]
        + b".Count:1|#Level:Model\n[PID]1\n\0\0"
        + zlib.compress(bulk, 0),
    ),
    "a PNG's profile that forges a request's line": lambda bulk: _png(
        b"iCCP", b'x\n{"time":"","logger":"' + bulk[:9] + b'"}\n\0\0' + zlib.compress(bulk, 0)
    ),
    "a PNG's profile of the marker": lambda bulk: _png(
        b"iCCP", bulk[:72] + b"\0\0" + zlib.compress(bulk, 0)
    ),
    "a PNG's unknown chunk": lambda bulk: _png(bulk[5:9].upper(), bulk),
    "a PNG cut in its data": lambda bulk: _png(b"tEXt", b"Comment\0" + bulk)[:400],
    "a JPEG's comment, and a cut": lambda bulk: _saved("JPEG", comment=bulk)[:-40] + bulk,
    "a JPEG with junk in its scan": lambda bulk: _saved("JPEG")[:-8] + bulk + b"\xff\xd9",
    "a GIF's comment": lambda bulk: _saved("GIF", comment=bulk)[:-10],
    "a WebP's EXIF": lambda bulk: _saved("WEBP", exif=bulk)[:-10],
    "a TIFF's tags": _tiff,
    "a BMP, cut": lambda bulk: _saved("BMP")[:60] + bulk,
}


def _grpc(method: str, message: Callable[[bytes], Any], protocol: Any = "unary") -> CallBuilder:
    def make(marker: bytes) -> Call:
        content = message(marker * 20)
        body = content if isinstance(content, bytes) else content.SerializeToString()
        return Call("marked", protocol, method, body=body)

    return make


def _prediction(**inputs: bytes) -> inference_pb2.PredictionsRequest:
    return inference_pb2.PredictionsRequest(model_name=COLOR_MODEL, input=inputs)


def _tensors(
    field: str, values: list[Any], shape: tuple[int, ...] = (1,), **more: Any
) -> oip.ModelInferRequest:
    datatype = {"bytes": "BYTES", "fp32": "FP32", "fp64": "FP64", "bool": "BOOL"}[field]
    request = oip.ModelInferRequest(model_name=COLOR_MODEL, **more)
    tensor = request.inputs.add(name="image", datatype=datatype, shape=shape)
    getattr(tensor.contents, f"{field}_contents").extend(values)
    return request


def _raw_contents(bulk: bytes) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name=COLOR_MODEL, raw_input_contents=[bulk])
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    return request


_PREDICTIONS: dict[str, Callable[[bytes], Any]] = {
    "data": lambda bulk: _prediction(data=bulk),
    "options that are no JSON": lambda bulk: _prediction(data=PNG, options=b'{"a": "' + bulk),
    "an unknown model": lambda bulk: inference_pb2.PredictionsRequest(
        model_name="nobody", input={"data": bulk}
    ),
    "a model named like the marker": lambda bulk: inference_pb2.PredictionsRequest(
        model_name=bulk.decode(), input={"data": bulk}
    ),
    "a version named like the marker": lambda bulk: inference_pb2.PredictionsRequest(
        model_name=COLOR_MODEL, model_version=bulk.decode(), input={"data": bulk}
    ),
    "no protobuf": lambda bulk: b"\xff\xff" + bulk,
    "a cut protobuf": lambda bulk: _prediction(data=bulk).SerializeToString()[:-9],
    "a name that is no UTF-8": lambda bulk: b"\n\xb4\x01" + bulk[:-2] + b"\xff\xfe",
}
_TENSORS: dict[str, Callable[[bytes], Any]] = {
    "tensor": lambda bulk: _tensors("bytes", [bulk]),
    "tensor of a wrong shape": lambda bulk: _tensors("bytes", [bulk], (7,)),
    "tensor whose type is the marker": lambda bulk: oip.ModelInferRequest(
        model_name=COLOR_MODEL, inputs=[{"name": "image", "datatype": bulk.decode(), "shape": [1]}]
    ),
    "raw contents": _raw_contents,
    "NaN beside bytes": lambda bulk: oip.ModelInferRequest(
        model_name=COLOR_MODEL,
        inputs=[*_tensors("bytes", [bulk]).inputs, *_tensors("fp32", [float("nan")]).inputs],
    ),
    "infinity beside bytes": lambda bulk: oip.ModelInferRequest(
        model_name=COLOR_MODEL,
        inputs=[*_tensors("bytes", [bulk]).inputs, *_tensors("fp64", [float("inf")]).inputs],
    ),
    "tensor for an unknown model": lambda bulk: oip.ModelInferRequest(
        model_name="nobody", inputs=_tensors("bytes", [bulk]).inputs
    ),
    "tensor for a model named like the marker": lambda bulk: oip.ModelInferRequest(
        model_name=bulk.decode(), inputs=_tensors("bytes", [bulk]).inputs
    ),
    "parameters": lambda bulk: oip.ModelInferRequest(
        model_name=COLOR_MODEL, parameters={"x": {"string_param": bulk.decode()}}
    ),
    "tensor that is no protobuf": lambda bulk: b"\xff\xff" + bulk,
}

_JSON_PATHS = {
    "predictions": PREDICT, "explanations": EXPLAIN, "v1": V1, "v2": V2, "invocations": INVOKE,
}  # fmt: skip
#: To the inference address.
HTTP: dict[str, CallBuilder] = {
    **{name: _http(PREDICT, content_type, body) for name, (content_type, body) in _FORMS.items()},
    "%zz in a value, invocations": _http(INVOKE, *_FORMS["%zz in a value"]),
    "%zz in a value, explanations": _http(EXPLAIN, *_FORMS["%zz in a value"]),
    **{
        f"{name}, {where}": _http(path, JSON, body)
        for name, body in _JSONS.items()
        for where, path in _JSON_PATHS.items()
    },
    **{name: _http(PREDICT, "image/png", body) for name, body in _PHOTOS.items()},
    "text that is no UTF-8": _http(PREDICT, "text/plain", lambda bulk: bulk + b"\xff"),
    "text of another charset": _http(PREDICT, "text/plain; charset=utf-16", lambda bulk: bulk),
    "no content type": _http(PREDICT, "", lambda bulk: bulk),
    "an invalid content type": _http(PREDICT, ";;;", lambda bulk: bulk),
    "an unknown model": _http("/predictions/nobody", "image/png", lambda bulk: bulk),
    "an unknown version": _http(f"{PREDICT}/9.9", "image/png", lambda bulk: bulk),
    "an unknown path": _http("/nothing/here", JSON, lambda bulk: b'{"a": "' + bulk),
    "an unsupported method": _http(PREDICT, JSON, lambda bulk: bulk, "PATCH"),
    "OPTIONS with a body": _http(PREDICT, JSON, lambda bulk: bulk, "OPTIONS"),
    "a wrong option beside the photo": _http(
        f"{PREDICT}/1.0/alpha=7", "image/png", lambda bulk: PNG + bulk
    ),
    "a query that cannot be read": _http(f"{INVOKE}&target=%zz", "image/png", lambda bulk: bulk),
    "a path that cannot be read": _http(f"{PREDICT}/1.0/%zz", "image/png", lambda bulk: bulk),
    "a workflow": _http("/wfpredict/nobody", JSON, lambda bulk: b'{"a": "' + bulk),
    "a workflow's form": _http("/wfpredict/nobody", FORM, lambda bulk: b"a=" + bulk + b"%zz"),
}
#: To the management address, and to that of the metrics.
MANAGE_HTTP: dict[str, CallBuilder] = {
    f"{name}{where}": _http(path, content_type, body, method)
    for where, (method, path) in {
        ", POST /models": ("POST", "/models"),
        ", POST /workflows": ("POST", "/workflows"),
        ", PUT": ("PUT", f"/models/{COLOR_MODEL}"),
        ", PUT set-default": ("PUT", f"/models/{COLOR_MODEL}/1.0/set-default"),
        ", DELETE": ("DELETE", "/models/nobody"),
    }.items()
    for name, (content_type, body) in {
        "broken JSON": (JSON, lambda bulk: b'{"url": "' + bulk),
        "JSON of a wrong type": (JSON, lambda bulk: b'["' + bulk + b'"]'),
        "JSON of a wrong number": (JSON, lambda bulk: b'{"batch_size": "' + bulk + b'"}'),
        "JSON of an url": (JSON, lambda bulk: b'{"url": "http://' + bulk + b'/%zz"}'),
        "form": (FORM, lambda bulk: b"url=" + bulk + b"%zz"),
    }.items()
}
#: To the gRPC address of inference.
GRPC: dict[str, CallBuilder] = {
    **{f"{name}, Predictions": _grpc(PREDICTIONS, body) for name, body in _PREDICTIONS.items()},
    **{
        f"{name}, StreamPredictions": _grpc(STREAM, body, "stream")
        for name, body in _PREDICTIONS.items()
    },
    **{f"{name}, ModelInfer": _grpc(INFER, body) for name, body in _TENSORS.items()},
    # With a sequence id, such a call can stop the model permanently (docs/reliability.md).
    "data, StreamPredictions2": _grpc(DUPLEX, _PREDICTIONS["data"], "duplex"),
    "no protobuf, StreamPredictions2": _grpc(DUPLEX, _PREDICTIONS["no protobuf"], "duplex"),
}
#: To the gRPC address of management.
MANAGE_GRPC: dict[str, CallBuilder] = {
    "register": _grpc(
        f"{MANAGEMENT}RegisterModel",
        lambda bulk: management_pb2.RegisterModelRequest(url=bulk.decode()),
    ),
    "describe": _grpc(
        f"{MANAGEMENT}DescribeModel",
        lambda bulk: management_pb2.DescribeModelRequest(model_name=bulk.decode()),
    ),
    "scale": _grpc(
        f"{MANAGEMENT}ScaleWorker",
        lambda bulk: management_pb2.ScaleWorkerRequest(model_name=bulk.decode()),
    ),
    "unregister": _grpc(
        f"{MANAGEMENT}UnregisterModel",
        lambda bulk: management_pb2.UnregisterModelRequest(model_name=bulk.decode()),
    ),
    "set default": _grpc(
        f"{MANAGEMENT}SetDefault",
        lambda bulk: management_pb2.SetDefaultRequest(
            model_name=COLOR_MODEL, model_version=bulk.decode()
        ),
    ),
    "no protobuf": _grpc(f"{MANAGEMENT}ListModels", lambda bulk: b"\xff\xff" + bulk),
}


def _after_first_headers(rest: bytes) -> Callable[[bytes, str], bytes]:
    """A request with these bytes after its first headers; the marker replaces ``%(bulk)s``."""

    def make(marker: bytes, token: str) -> bytes:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        return head.encode() + rest.replace(b"%(bulk)s", marker * 20)

    return make


def _bytes(data: bytes) -> Callable[[bytes, str], bytes]:
    return lambda marker, _: data.replace(b"%(bulk)s", marker * 20)


_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


def _frame(frame_type: int, flags: int, stream: int, length: int) -> bytes:
    """The header of an HTTP/2 frame."""
    return struct.pack(">I", length)[1:] + bytes((frame_type, flags)) + struct.pack(">I", stream)


#: Bytes for a socket, made of a marker and a token: invalid or incomplete requests.
RAW: dict[str, Callable[[bytes, str], bytes]] = {
    "no HTTP": _bytes(b"%(bulk)s\r\n\r\n"),
    "a line that never ends": _bytes(b"%(bulk)s" * 100),
    "a TLS record": _bytes(b"\x16\x03\x01\x02\0%(bulk)s%(bulk)s%(bulk)s"),
    "a chunk whose size is the marker": _after_first_headers(
        b"Transfer-Encoding: chunked\r\n\r\n%(bulk)s\r\n%(bulk)s\r\n"
    ),
    "a chunk's extension": _after_first_headers(
        b"Transfer-Encoding: chunked\r\n\r\n5;%(bulk)s\r\nabcde\r\n0\r\n\r\n"
    ),
    "a trailer": _after_first_headers(
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n%(bulk)s: %(bulk)s\r\n\r\n"
    ),
    "a body longer than it says": _after_first_headers(
        b"Content-Length: 3\r\n\r\nabc%(bulk)s\r\n\r\n"
    ),
    "a body shorter than it says": _after_first_headers(b"Content-Length: 5000\r\n\r\n%(bulk)s"),
    "a wrong content encoding": _after_first_headers(
        b"Content-Encoding: gzip\r\nContent-Length: 180\r\n\r\n%(bulk)s"
    ),
    "invalid HTTP/2": _bytes(_HTTP2 + b"%(bulk)s"),
    "invalid HTTP/2 headers": _bytes(_HTTP2 + _SETTINGS + _frame(1, 5, 1, 180) + b"%(bulk)s"),
    "HTTP/2 data of no stream": _bytes(_HTTP2 + _SETTINGS + _frame(0, 1, 1, 180) + b"%(bulk)s"),
    "an HTTP/2 GOAWAY frame": _bytes(
        _HTTP2 + _SETTINGS + _frame(7, 0, 0, 188) + bytes((0, 0, 0, 0, 0, 0, 0, 2)) + b"%(bulk)s"
    ),
}
