"""Benchmarks: a full-size synthetic raw root and the programs the build is measured against."""
