"""What pipelines and file cabinets take of a run: gates as JUnit and SARIF, and the evidence of `write_evidence`."""
