"""Credential stores: who may log in, behind one small interface."""
