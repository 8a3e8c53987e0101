"""From a trained model to a bundle: trained_model -> graph (with fold) -> optimise -> parity -> card.

`pipeline` runs them in this order, `commands` sits on top. May import the runtime (`edgewren`), never train: the two
meet at the trained model's folder. Every gate runs through the runtime's own tokenizer and session.
"""
