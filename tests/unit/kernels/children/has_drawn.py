"""Preloaded by a zygote: draws from everything whose state its children could share."""

import os
import random
import secrets
import tempfile
import uuid

import numpy

random.random()
numpy.random.random()
numpy.random.default_rng().random()
uuid.uuid4()
secrets.token_hex()
os.urandom(8)
next(tempfile._get_candidate_names())  # type: ignore[attr-defined]  # what `mktemp` and the others take their names from
