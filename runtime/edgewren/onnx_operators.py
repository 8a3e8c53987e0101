"""The operators that a bundle's model may have. All make numbers from numbers; none opens files, loops or calls back.

What exports of BERT, MPNet, RoBERTa, DistilBERT, XLM-R, ELECTRA, ALBERT, ModernBERT,
DeBERTa v2, ConvBERT and MobileBERT hold in fp32, int8 and fp16, every pooling of sentence-transformers, and what
onnxruntime's optimiser makes of them.
"""

from __future__ import annotations

from collections.abc import Mapping

_STANDARD = """
    Abs Add And ArgMax Attention Cast Ceil Clip Concat Constant ConstantOfShape Conv Cos CumSum DequantizeLinear Div
    DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm
    Greater GreaterOrEqual HardSigmoid HardSwish Identity IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax MatMul MatMulInteger Max Mean Min Mod Mul Neg Not Or Pad Pow QuantizeLinear RMSNormalization Range
    Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin ReduceSum ReduceSumSquare Relu Reshape Round Shape Sigmoid Sign
    SimplifiedLayerNormalization Sin Slice Softmax Softplus Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose Trilu
    Unsqueeze Where
""".split()  # noqa: SIM905  a list of names is read as words
_MICROSOFT = """
    Attention BiasGelu DynamicQuantizeMatMul EmbedLayerNormalization FastGelu FusedGemm FusedMatMul Gelu
    MatMulIntegerToFloat MultiHeadAttention QuickGelu SkipLayerNormalization SkipSimplifiedLayerNormalization
""".split()  # noqa: SIM905

OPERATORS: Mapping[str, frozenset[str]] = {
    "ai.onnx": frozenset(_STANDARD),
    "com.microsoft": frozenset(_MICROSOFT),
}

BOUNDED_INTEGERS: Mapping[str, tuple[int, int]] = {
    "num_heads": (1, 1024),
    "q_num_heads": (1, 1024),
    "kv_num_heads": (1, 1024),
    "batch_dims": (0, 8),
}
"""Attributes by which onnxruntime divides, or counts axes from, without looking at them."""
