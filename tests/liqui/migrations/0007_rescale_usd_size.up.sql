-- Fixture of the faulty release 1.2.0: a migration that ruins data and has no way back.
-- It means to recompute usd_size and to avoid a division by zero, but NULLIF(x, x) is always NULL,
-- so every usd_size is lost; and no spelling of a symbol can be told from another one afterwards.
UPDATE binance_liqs
SET usd_size = price * original_quantity * original_quantity / NULLIF(original_quantity, original_quantity),
    symbol = LOWER(symbol);
