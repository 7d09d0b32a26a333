"""The families a topology may name. Importing this imports nothing else."""

from __future__ import annotations

from typing import Literal

ToolFamily = Literal["hermes", "llama3_json", "mistral", "deepseek", "pythonic"]
ReasoningFamily = Literal["deepseek_r1", "qwen3", "mistral", "granite"]
