"""The stacks that `rivals.py` compares: one module per library, each with functions `Material` -> `Stack`.

A stack takes texts and gives labels, tokenisation included. All hold the same MiniLM weights and the same ridge head,
so their labels can be compared. A module imports its library at its top: an ImportError says that it is not installed.
"""

import os
import sys

# Before any library is imported: nothing here may use the network.
for _name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "ORT_DISABLE_TELEMETRY"):
    os.environ[_name] = "1"
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # OpenVINO and NNCF then take their own stub
