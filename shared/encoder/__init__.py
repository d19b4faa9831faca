"""A BERT-family text encoder on ONNX Runtime, straight from a folder of safetensors weights."""
