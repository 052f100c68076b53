DROP TABLE binance_liqs;
