"""Judgement: pure decisions. Values come in, values go out; no clock, no disk."""
