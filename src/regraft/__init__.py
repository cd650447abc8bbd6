"""Regraft grows efficient perception models and replaces them without replanting."""
