"""Export, proof and timing of a trained model."""
