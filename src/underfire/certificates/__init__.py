"""Certificates: what no attack on label and map can do, by randomised smoothing."""

from underfire.certificates.cells import CellCertificate, certify_cells
from underfire.certificates.certificate import Certificate
from underfire.certificates.certification import certify
from underfire.certificates.smoothed import Smoothed, SmoothedResult

__all__ = ["CellCertificate", "Certificate", "Smoothed", "SmoothedResult", "certify", "certify_cells"]
