"""LoRA: adapters and head trained together."""
