"""FunASR's own realtime server, from its package, with models that are made up.

Speech is what is loud. Of each stretch the recogniser writes a character for 200 ms, from the
beginning of TEXT. Prints its port once it listens.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import torch
import websockets
from funasr.bin import realtime_ws

TEXT = "南京市长江大桥"
RATE = 16_000
CHARACTER_MS = 200
LOUD = 0.02
PAUSE_MS = 300


class Tokenizer:
    def encode(self, text: str) -> list[str]:
        return list(text)

    def decode(self, tokens: Sequence[str], *, skip_special_tokens: bool) -> str:
        return "".join(tokens)


class Recogniser:
    tokenizer = Tokenizer()

    def generate(self, inputs: Sequence[torch.Tensor], **_: Any) -> list[dict[str, str]]:
        return [{"text": TEXT[: self._loud_ms(samples) // CHARACTER_MS]} for samples in inputs]

    def _loud_ms(self, samples: torch.Tensor) -> int:
        tens = samples[: len(samples) // 160 * 160].reshape(-1, 160)
        return 10 * int((tens.square().mean(dim=1).sqrt() > LOUD).sum())


class VoiceActivity:
    """Says where speech begins and ends as fsmn-vad does: [[start, -1]], [[-1, end]]."""

    def generate(
        self,
        input: Sequence[torch.Tensor],  # noqa: A002
        cache: dict[str, int],
        **_: Any,
    ) -> list[dict[str, list[list[int]]]]:
        said = []
        for ten in input[0].split(160):
            at = cache["ms"] = cache.get("ms", 0) + 1000 * len(ten) // RATE
            if ten.square().mean().sqrt() > LOUD:
                cache["loud"] = at
                if not cache.get("open"):
                    cache["open"] = 1
                    said.append([at - 10, -1])
            elif cache.get("open") and at - cache["loud"] >= PAUSE_MS:
                cache["open"] = 0
                said.append([-1, cache["loud"]])
        return [{"value": said}]


async def main(endpoint_mode: str) -> None:
    arguments = ["--endpoint-mode", endpoint_mode, "--decode-interval", "0", "--hotword-file", ""]
    args = realtime_ws.build_arg_parser().parse_args(arguments)
    realtime_ws._vllm_engine = realtime_ws.RealtimeBatchingEngine(Recogniser())
    realtime_ws._asr_kwargs = {}
    realtime_ws._vad_model = VoiceActivity()
    options = realtime_ws.build_websocket_serve_kwargs(args)
    async with websockets.serve(
        lambda socket: realtime_ws.handle_client(socket, args), "127.0.0.1", 0, **options
    ) as server:
        print("port", server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
