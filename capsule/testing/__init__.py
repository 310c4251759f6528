"""The contract of providers: what each of them has to hold, as tests that a provider's own suite inherits.

A provider's test is a class of a few lines; pytest runs what it inherits:

    from capsule.testing import Example, ProviderContract

    class TestAcme(ProviderContract):
        examples = {"greet": Example({"name": "you"}), "give": Example({"size": 10})}

        def provider(self):
            return acme_caps.provider()

All calls go through the checkpoint that a node has, with real bodies and a real store. What a provider cannot hold it
says by an attribute of the class, and why stands beside it.
"""

from capsule.testing.contract import ProviderContract
from capsule.testing.examples import Example

__all__ = ["Example", "ProviderContract"]
