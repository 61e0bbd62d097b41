"""Start the Open Inference front by itself, as beside a TorchServe in the same pod.

  python -m camserve_cli.open_inference --inference http://127.0.0.1:8080 \
      --management http://127.0.0.1:8081 --tokens /run/torchserve

It answers KServe's and Triton's clients over HTTP and gRPC until SIGTERM, after which it answers
what is in work. camserve serve start --open-inference starts it beside a server of this machine.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

import uvloop

from camserve_cli.errors import CommandError
from camserve_cli.open_inference import json_log
from camserve_cli.open_inference.limits import Limits
from camserve_cli.open_inference.process import Settings, run
from camserve_cli.open_inference.torchserve import TorchServeAddress
from camserve_cli.serving.certificates import Certificate, PinnedHostContext


def main() -> int:
    """Serve; the exit status."""
    arguments = _parse()
    json_log.set_up(arguments.log)
    trust = PinnedHostContext.of(arguments.ca, arguments.name) if arguments.ca else None
    try:
        settings = Settings(
            upstream=TorchServeAddress(
                arguments.inference,
                arguments.management,
                arguments.tokens,
                arguments.token_lifetime,
                trust,
            ),
            http=arguments.http,
            grpc=arguments.grpc,
            certificate=Certificate(arguments.tls) if arguments.tls else None,
            limits=Limits(
                **{limit.name: getattr(arguments, limit.name) for limit in fields(Limits)}
            ),
        )
        uvloop.run(run(settings))
    except (CommandError, OSError, ValueError) as failure:
        print(f"open_inference: {failure}", file=sys.stderr)
        return 1
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m camserve_cli.open_inference",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--inference", default="http://127.0.0.1:8080", help="TorchServe's inference address.")
    add("--management", default="http://127.0.0.1:8081", help="Its management address.")
    add("--tokens", type=Path, default=Path(), help="The folder of its key_file.json.")
    add("--token-lifetime", type=float, default=3600.0, help="Seconds that a new token is good.")
    add("--ca", help="The authority that it is verified with, where its addresses are https.")
    add("--name", default="localhost", help="The name in its certificate.")
    add("--http", default="127.0.0.1:8000", metavar="HOST:PORT", help="To listen on.")
    add("--grpc", default="127.0.0.1:8001", metavar="HOST:PORT", help="To listen on.")
    add("--tls", type=Path, metavar="FOLDER", help="Of server.pem and server.key, to speak TLS.")
    add("--log", type=Path, help="The file to log to; stderr by default.")
    for limit in fields(Limits):
        # Of the type of its default.
        add(
            f"--{limit.name.replace('_', '-')}",
            type=type(limit.default),
            default=limit.default,
            metavar="N",
            help=f"{limit.metadata['help']} Default: {limit.default}.",
        )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
