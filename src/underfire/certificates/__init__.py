"""Certificates: what no attack on label and map can do, by randomised smoothing."""

from underfire.certificates.certificate import Certificate
from underfire.certificates.certification import certify

__all__ = ["Certificate", "certify"]
