"""Broken bodies other than photos: JSON, forms, base64, headers, options, protobuf messages."""

from __future__ import annotations

import base64
import json
import zlib
from random import Random
from typing import Any, Final

import inference_pb2
import open_inference_grpc_pb2 as oip

JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data; boundary=b"
#: Values for an option, valid and invalid ones.
_VALUES: Final = (
    "", "red", "top:2", "0", "-1", "1e400", "nan", "x" * 5000, "[", "[]", '["a"]', "null", "{}",
    "layer4.2", "png", "original", "8192", "true", "heatmap,map,boxes", "9" * 5000, "\u00e9",
    "\x7f",
)  # fmt: skip
_OPTIONS: Final = (
    "target", "top_k", "explain", "method", "layer", "outputs", "image_format", "size", "colormap",
    "alpha", "threshold", "faithfulness", "explain_when", "record", "alhpa", "image", "data",
    "options", "model_name", "body",
)  # fmt: skip
_BASE64: Final = (
    "@@@", "A", "AAA", "data:image/png;base64,{0}", "{0}====", "{0}\n", " {0}", "{0}A", "-_{0}",
    "", "{0}{0}", "\u00e9{0}", "{0}\x00", "QUJD",
)  # fmt: skip
_JSON: Final = (
    b"", b"{", b"[" * 100_000, b'{"image":' * 500, b"NaN", b"[Infinity]", b"null", b"3", b'"text"',
    b"[]", b"{}", b'{"": 1}', b'{"image": "\\ud800"}', b'{"target": "\\udc00", "image": "QQ=="}',
    b'{"image": "\xff\xfe"}', b"\xef\xbb\xbf{}", b'{"image": "QQ==", "image": "QUE="}',
    b'{"image": ' + b"9" * 5000 + b"}", b'{"image": 1e999}',
    b'{"image": "' + b"A" * 200_000 + b'"}',
    b'{"instances": []}', b'{"instances": [[]]}', b'{"instances": ' + b"[1," * 500 + b"1]",
    b'{"instances": [' + b'"QQ==",' * 40 + b'"QQ=="]}', b'{"instances": null, "parameters": []}',
    b'{"inputs": []}', b'{"inputs": [{}]}', b'{"inputs": {"name": "image"}}', b'{"inputs": NaN}',
    b'{"id": "\\ud800", "inputs": [{"name": "image", "shape": [1], "data": ["QQ=="]}]}',
    b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1e9], "data": ["QQ=="]}]}',
    b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1], "data": ["QQ=="]}]}',
    b'{"inputs": [{"name": "image", "datatype": "FP32", "shape": [1], "data": [NaN]}]}',
    b'{"inputs": [{"name": "image", "shape": [1], "data": [[[[[[1]]]]]]}], "outputs": [3]}',
)  # fmt: skip
_TYPES: Final = (
    JSON, "application/json; charset=utf-16", "text/plain", "image/png", "", ";;;", "multipart/",
    "application/octet-stream", "application/grpc", "multipart/mixed; boundary=b", _FORM,
    "x" * 2000,
)  # fmt: skip
_EXPLAIN: Final = (
    "{", "[]", "null", "3", '"a"', "{}", '{"target": "\\ud800"}', '{"alpha": NaN}', "\u00e9",
    '{"outputs": ' + "[" * 2000 + "]" * 2000 + "}", '{"top_k": ' + "9" * 4400 + "}",
    '{"target": {"a": 1}}', '{"": ""}', '{"target": "red", "target": "blue"}',
)  # fmt: skip


def broken_json(random: Random, photo: bytes) -> bytes:
    """A JSON body that is broken, or valid with an invalid value."""
    encoded = base64.b64encode(photo).decode()
    variant = random.randrange(4)
    if variant == 0:
        return random.choice(_JSON)
    value: Any = random.choice((*_VALUES, None, [], {}, -1, 1e308, True, [[]]))
    image = random.choice(_BASE64).format(encoded) if variant == 1 else encoded
    plain = {"image": image, random.choice(_OPTIONS): value}
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [image]}
    body = json.dumps(
        random.choice((plain, {"instances": [plain]}, {"inputs": [tensor], "parameters": plain}))
    ).encode()
    return body[: random.randrange(len(body))] if variant == 2 else body


def broken_form(random: Random, photo: bytes) -> tuple[str, bytes]:
    """A form's content type and body, damaged in its framing or its fields."""
    encoded = base64.b64encode(photo)
    if random.random() < 0.4:
        value = random.choice(_VALUES).encode()
        pieces = (b"data=" + encoded, b"target=" + value, b"a" * 3000, b"x=1&" * 300, b"%zz", b"=")
        return _FORM, b"&".join(random.choices(pieces, k=3))
    part = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n%s\r\n%s\r\n'
    name = random.choice((b"data", b"image", b"target", b"options", b"", b"x" * 3000, b"\xff"))
    extra = random.choice(
        (b"", b"Content-Type: image/png\r\n", b"Content-Transfer-Encoding: base64\r\n",
         b"Content-Type: text/plain; charset=x\r\n", b"Content-Type: multipart/mixed\r\n")
    )  # fmt: skip
    body = part % (name, extra, photo) * random.choice((1, 1, 2, 50))
    end = random.choice((b"--b--\r\n", b"", b"--c--\r\n", b"--b"))
    content_type = random.choice(
        (_MULTIPART, _MULTIPART, "multipart/form-data", "multipart/form-data; b")
    )
    return content_type, random.choice((body + end, body[: random.randrange(len(body))], end))


def broken_compression(random: Random, photo: bytes) -> tuple[str, str, bytes]:
    """A photo or JSON, compressed, and perhaps damaged: its encoding, content type and body."""
    is_json = random.random() < 0.5
    plain = json.dumps({"image": base64.b64encode(photo).decode()}).encode() if is_json else photo
    bits, encoding = random.choice(
        ((31, "gzip"), (15, "deflate"), (-15, "deflate"), (31, "x-gzip"))
    )
    # Now and then a body that is far larger than what is accepted.
    plain = plain + b" " * random.choice((*(0,) * 19, 60_000_000))
    compressor = zlib.compressobj(1, zlib.DEFLATED, bits)
    body = compressor.compress(plain) + compressor.flush()
    variant = random.randrange(6)
    if variant == 0:
        body = body[: random.randrange(len(body))]
    elif variant == 1:
        at = random.randrange(len(body))
        body = body[:at] + random.randbytes(4) + body[at + 4 :]
    elif variant == 2:
        body += random.choice((b"\0", b"further bytes", body[:100]))
    elif variant == 3:
        encoding = random.choice(("identity", "gzip, gzip", "GZIP", "br", "gzip;q=1", "x"))
    return encoding, random.choice((JSON, "image/png", "text/plain", "")), body


def broken_headers(random: Random) -> tuple[tuple[str, str], ...]:
    """X-Explain in none, one or two headers, unusual content types and encodings."""
    headers = [("Content-Type", random.choice(_TYPES))]
    headers += [("X-Explain", random.choice(_EXPLAIN)) for _ in range(random.randrange(3))]
    if random.random() < 0.3:
        headers.append(("Content-Encoding", random.choice(("gzip", "br", "x"))))
    return tuple(headers)


def random_option(random: Random) -> tuple[str, str]:
    """An option's name and value, often invalid."""
    return random.choice(_OPTIONS), random.choice(_VALUES)


def broken_predictions_request(random: Random, model: str, photo: bytes) -> bytes:
    """A serialized PredictionsRequest with unusual inputs, or bytes that are no message."""
    inputs = {random.choice(_OPTIONS): random.randbytes(20), random_option(random)[0]: b"red"}
    variant = random.randrange(6)
    if variant == 0:
        inputs |= {f"k{n}": b"x" for n in range(random.choice((10, 2000)))}
    elif variant == 1:
        inputs = {}
    elif variant > 3:
        inputs["data"] = photo
    name = random.choice((model, model, model, "", "nobody", "\u00e9"))
    message = inference_pb2.PredictionsRequest(model_name=name, input=inputs).SerializeToString()
    return _perhaps_damaged(random, bytes(message))


def broken_infer_request(random: Random, model: str, photo: bytes) -> bytes:
    """A serialized ModelInferRequest with invalid tensors, or bytes that are no message."""
    name = random.choice((model, model, model, "", "nobody"))
    request = oip.ModelInferRequest(model_name=name, id=random.choice(_VALUES))
    for _ in range(random.choice((0, 1, 1, 2, 2, 300))):
        tensor = request.inputs.add(
            name=random.choice(("image", *_OPTIONS)),
            datatype=random.choice(
                ("BYTES", "BYTES", "FP32", "FP16", "INT8", "BOOL", "", "nothing")
            ),
            shape=random.choice(([1], [1], [], [2, 3], [-1], [2**62, 2**62], [0])),
        )
        field, values = random.choice(
            (
                ("bytes_contents", [photo]), ("bytes_contents", [photo, b"\xff"]),
                ("fp32_contents", [0.5]), ("fp32_contents", [float("nan")]),
                ("bool_contents", [True]),
                ("int64_contents", [-(2**63)]), ("uint64_contents", [2**64 - 1]),
                ("bytes_contents", []),
            )
        )  # fmt: skip
        getattr(tensor.contents, field).extend(values)
    if random.random() < 0.2:
        request.raw_input_contents.append(random.randbytes(20))
    return _perhaps_damaged(random, request.SerializeToString())


def _perhaps_damaged(random: Random, message: bytes) -> bytes:
    variant = random.randrange(5)
    if variant == 0:
        return random.randbytes(random.randrange(100))
    return message[: random.randrange(len(message) + 1)] if variant == 1 else message
