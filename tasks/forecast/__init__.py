"""The last step: what a model may know at an origin, its forecasts, and the table they are published to."""
