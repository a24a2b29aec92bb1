"""Artifacts in an S3-compatible bucket. boto3 is imported here only."""
