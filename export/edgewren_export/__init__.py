"""From a trained model to a bundle: trained_model -> gate_texts -> encoder_export or static_export -> bundle_writer.

`pipeline` runs them in this order, `commands` sits on top. `encoder_export` goes graph (with fold) -> optimise ->
variants, each step against the one before it (reference, logits, parity); `proof` collects what was found, and
`bundle_writer` adds card and manifest. May import the runtime (`edgewren`), never train: the two meet at the trained
model's folder. Every gate runs through the runtime's own tokenizer and session.
"""
