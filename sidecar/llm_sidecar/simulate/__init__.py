"""Simulated OpenAI, Anthropic and Gemini on one port: upstreams for demos, tests and chaos that cost nothing."""

from llm_sidecar.simulate.app import SimulatorHandle, create_application, running
from llm_sidecar.simulate.errors import Family
from llm_sidecar.simulate.faults import FAULT_HEADER, Faults, FaultSpecError, parse_faults
from llm_sidecar.simulate.settings import DEFAULT_MODELS, DEFAULT_PORT, SimulatorSettings

__all__ = [
    "DEFAULT_MODELS",
    "DEFAULT_PORT",
    "FAULT_HEADER",
    "Family",
    "FaultSpecError",
    "Faults",
    "SimulatorHandle",
    "SimulatorSettings",
    "create_application",
    "parse_faults",
    "running",
]
