"""The theorems of section 3 as numbers: bounds, the constants they need, and their lemmas.

`model_rip` holds Theorem 3.1 and Corollary 3.2, `one_step` Theorem 3.3 and the rates of the
iterations, `lemmas` each lemma of appendices A and B as an inequality to evaluate.
"""

from invertnb.theory import lemmas, model_rip, one_step

__all__ = ["lemmas", "model_rip", "one_step"]
