"""An artefact for onnxruntime and OpenVINO."""
