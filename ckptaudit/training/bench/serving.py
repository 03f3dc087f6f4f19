"""The child process of ``ckptaudit bench``: it has the model and the machine to itself, and sends what it measures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from ...errors import CkptauditError, ModelError, UsageError, first_line
from ...model.serving import Answer, build_for, spec_of
from ...model.spec import parse_model_spec

_DEPTHS = 3  # between none and all; a plan has each

# The profiler's library looks for a driver of its own accord, and says on standard error that there is none.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")


def serve(requests: Iterable[str], answer: Answer) -> None:
    """Answer the one request: the progress, the plan, then, unless that is all, what was built and every round."""
    request = json.loads(next(iter(requests)))
    spec, options = spec_of(request), request[6]
    built = build_for(spec)

    def progress(done: int, total: int, what: str) -> None:
        answer({"progress": [done, total, what]})

    from .session import Session

    subject = _subject(built, options)
    with Session(subject, device=subject.device, threads=options["threads"], clock=options["clock"]) as session:
        plan = session.plan(timed=options["timed"], progress=progress)
        answer({"plan": plan.to_json(), "environment": session.environment()})
        if options["plan"]:
            answer({"end": True})
            return
        session.build(plan, progress)
        peaks = session.peaks()
        answer({"samples": session.samples, "peaks": peaks, "left_out": session.left_out})
        for one in session.rounds(options["rounds"], options["seconds"], progress):
            answer({"round": {name: time.to_json() for name, time in one.times.items()}})
    answer({"end": True})


def _subject(built: Any, options: dict[str, Any]) -> Any:
    import torch

    from . import freeze_variants

    dtype = getattr(torch, options["dtype"], None) if options["dtype"] else None
    if options["dtype"] and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise UsageError(f"--dtype {options['dtype']}", "is no floating-point dtype of torch", "bfloat16, float16, ...")
    model = built.module if options["plan"] else _with_values(built)
    return freeze_variants(
        model,
        options["inputs"],
        freeze=options["freeze"] or None,
        make_step=_maker(options["step"]) if options["step"] else None,
        optimizer=options["optimizer"],
        depths=options["depths"] or (None if options["plan"] else _DEPTHS),
        only=options["only"],
        device=_device(options["device"]),
        dtype=dtype,
        name=built.facts.name,
    )


def _with_values(built: Any) -> Any:
    try:
        return built.with_values()
    except CkptauditError:
        raise
    except (Exception, SystemExit) as error:
        reason = f"cannot be built with values: {first_line(error)}"
        raise ModelError(built.facts.name, reason, "see --plan, which needs none") from error


def _device(name: str | None) -> str | None:
    import torch

    if name is None:
        return None
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name}", f"cannot be used: {str(error).splitlines()[0]}", "--device cpu") from error
    return name


def _maker(text: str) -> Any:
    """Return the function that ``--step`` names."""
    from ...model.usercode import import_code, resolve

    spec = parse_model_spec(text, usage="ckptaudit bench MODEL --step {model}")
    if spec.attribute is None:
        raise UsageError(f"--step {text}", "names a file and no function in it", f"--step {text}:make_step")
    maker = resolve(import_code(spec), spec.attribute, spec)
    if not callable(maker):
        raise UsageError(f"--step {text}", "is no function", "def make_step(model, parameters): ...")
    return maker
