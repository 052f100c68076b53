-- The liquidations of one symbol by side.
CREATE INDEX idx_symbol_side ON binance_liqs (symbol, side);
