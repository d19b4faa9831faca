"""A BERT-family text encoder on ONNX Runtime, straight from a folder of safetensors weights."""

import os

# ONNX Runtime would send usage data to its maker and leave a file in the temporary folder. It reads
# this when it is first imported, after this line; its call to switch it off comes too late.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
