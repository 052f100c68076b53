DROP INDEX idx_symbol_side ON binance_liqs;
