"""mapnet: variance-reduced language-model pretraining with a mask proposal network."""

__version__ = "0.1.0"
