"""The front ends, one protocol each: protocol events joined to the pipeline, written once for all drivers."""
