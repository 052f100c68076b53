DROP INDEX idx_symbol_time_side ON binance_liqs;
