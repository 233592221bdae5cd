"""From quantized latents to images: the contract, one pass, and diffusion."""
