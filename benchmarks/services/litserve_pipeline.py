"""LitServe around optimum's ONNX Runtime pipeline, with its own batching. BUNDLE_DIR names an exported bundle."""

import os
import sys
from typing import Any

import litserve as ls


class Pipeline(ls.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002  LitServe's signature
        from optimum.onnxruntime import ORTModelForSequenceClassification
        from transformers import AutoTokenizer, pipeline

        folder = os.environ["BUNDLE_DIR"]
        file = os.environ.get("BUNDLE_FILE", "model.onnx")
        self.classify = pipeline(
            "text-classification",
            model=ORTModelForSequenceClassification.from_pretrained(folder, subfolder="onnx", file_name=file),
            tokenizer=AutoTokenizer.from_pretrained(folder),
            top_k=None,
            truncation=True,
        )

    def decode_request(self, request: dict[str, Any]) -> str:
        text: str = request["inputs"]
        return text

    def predict(self, texts: list[str]) -> list[Any]:
        out: list[Any] = self.classify(texts, batch_size=len(texts))
        return out

    def encode_response(self, output: Any) -> Any:
        return output


if __name__ == "__main__":
    server = ls.LitServer(Pipeline(max_batch_size=16, batch_timeout=0.002), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
